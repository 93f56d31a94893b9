"""Study `keeping-icl`: what keeps in-context learning from fading, and what each method costs."""
