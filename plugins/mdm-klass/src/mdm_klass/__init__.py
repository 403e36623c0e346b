"""KLASS for mdm: commits tokens whose distribution is stable between steps."""
