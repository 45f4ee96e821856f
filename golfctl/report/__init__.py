"""What is known, for people: the terminal and Markdown. Both render one Summary."""
