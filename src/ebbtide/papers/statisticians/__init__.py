"""Study `statisticians`: does a transformer do in context what the best statistical method does, and choose it?"""
