"""The room for families mined from parallel data: gettext catalogues, aligned Markdown, translated command pages."""
