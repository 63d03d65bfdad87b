// Importing it starts the guard; there is nothing to take from it.
export {};
