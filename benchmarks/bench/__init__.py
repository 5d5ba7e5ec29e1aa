"""`kanoclip-bench`: how fast a bundle is on this machine, where the time goes, and what could be had at best."""
