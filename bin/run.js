// Runs a development tool (a name in node_modules/.bin, or a script) with the Node.js that Vitrine itself uses.
globalThis.VITRINE_TOOL = true;
await import('./vitrine.js');
