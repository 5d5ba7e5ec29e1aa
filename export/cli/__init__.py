"""`kanoclip-export`: its options in groups, what is refused before anything is loaded, and the export."""
