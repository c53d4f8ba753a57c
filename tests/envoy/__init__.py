"""Side by side with a real Envoy: the same clusters, the same requests, and what each makes of them."""
