"""One module per command group: parse, call, print. Only this layer prints."""
