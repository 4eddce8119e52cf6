"""Method plugins: a module a method, configured by ``conf/method``."""
