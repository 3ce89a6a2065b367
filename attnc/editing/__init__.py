"""What an editor asks of a pattern file: the language server, ``attnc lsp``, and the words for highlighters."""
