"""The bundled trainer: small language models under a byte cap. It never imports golfctl."""
