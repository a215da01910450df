"""Sign-in by OpenID Connect: allauth's provider, with a nonce, verified signatures, and the issuer in the account."""
