"""The AsyncAPI 3 document: the public topics, who writes and reads them, and the messages on them."""
