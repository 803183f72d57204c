"""What is kept on disk: whole files, hashes, manifests, identities."""
