"""What frozen features are worth: linear SVM, retrieval, clusters."""
