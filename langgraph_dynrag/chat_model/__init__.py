"""A local language model as a LangChain chat model, with chat templates, tool calling and structured output."""
