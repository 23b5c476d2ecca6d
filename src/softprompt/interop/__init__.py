"""The name that `softprompt.library.formats` had before: scripts written against it still run."""
