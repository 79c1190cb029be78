"""The stage `filter`: the stage itself (__main__), its rules, and what lets them work on tables larger than memory."""
