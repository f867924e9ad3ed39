"""The claims of the debate: what each says, where its line is drawn, how it is measured."""
