"""The last room: a schedule becomes the text of a Python module. Imported as ``attnc.codegen``."""

if __name__ != "attnc.codegen":
    raise ImportError("this folder is part of the package `attnc`: write `import attnc.codegen`")
