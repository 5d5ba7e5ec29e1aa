"""What is deployed: the manifest, its verification, the parity bounds, and the bundles that ship."""
