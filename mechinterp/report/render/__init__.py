"""What all pages and terminal views are made with."""
