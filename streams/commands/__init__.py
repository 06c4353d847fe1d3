"""The commands of `freshet`, a module a topic; each imports what it needs when it runs, so that help is quick."""
