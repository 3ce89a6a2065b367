"""What an editor asks of a pattern file: the language server, ``attnc lsp``, and words for highlighters."""
