"""Study `forecast`: can the fall of in-context learning be told from early training?"""
