"""The only room that knows HTTP: the client, the cassette of recorded exchanges, the local server, the engine."""
