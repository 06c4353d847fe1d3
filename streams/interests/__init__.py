"""UserState: events enter as decoded batches, the state of each user leaves as records and interest vectors."""
