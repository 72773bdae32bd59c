"""Adapters in an object store that many hosts share: `store` names the objects, `state` states the rules."""
