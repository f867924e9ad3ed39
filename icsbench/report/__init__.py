"""What people and programs read: the console, Markdown, CSV and JSON, one HTML page. Never imports torch."""
