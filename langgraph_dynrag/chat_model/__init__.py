"""The local language model as a LangChain chat model: templates, tools, structured output."""
