"""The Playground: chats with deployed models through the gateway, kept, compared and voted on."""
