"""Human evaluation, the paper's Table 2: people rate the answers of several systems without knowing whose they are.

`vikdf human sheet` writes a page for each rater and the key that says whose each answer is (sheet.py; the page itself is
page.html, page.css and page.js; pictures.py puts pictures into it). People rate and send files back. `vikdf human table`
checks these (ratings.py) and makes table2.csv of them (table.py, agreement.py). commands.py holds the flags of both.
No rating is ever made here: they come from people alone.
"""

CRITERIA = {  # name -> what the page asks, and the words at both ends of its scale; the paper's three, in our words
    "relevance": ("Does the answer fit what was said before it?", "not at all", "entirely"),
    "informativeness": ("Does it bring something new that is of use here?", "nothing", "very much"),
    "fluency": ("Is it natural, readable and correct language?", "hardly readable", "flawless"),
}
WITH_PICTURE = {
    "relevance": "Does the answer fit what was said before it, and the picture?"
}  # asked where there is one
SCALE = (1, 2, 3, 4, 5)
LETTERS = "ABCDEFGHIJ"  # a page calls the answers to a dialogue so
