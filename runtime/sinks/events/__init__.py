"""Events for other programs: MQTT, webhooks, and the outbox that holds what could not be delivered."""
