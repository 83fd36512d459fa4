"""The MCP server of the daemon, and the small process that a host starts to reach it (docs/mcp.md)."""
