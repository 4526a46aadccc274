"""The HTTP door: OpenAI's interface in front of the topics (docs/http.md). A bridge: decisions stay in the stream."""
