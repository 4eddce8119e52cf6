"""Published figures (``published.csv``); what runs write lies here too and is not part of the package."""
