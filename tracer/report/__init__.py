"""A trace in; what a page shows about it as plain data, and the page as one HTML file, out."""
