//! What an interval is made of: the nouns the wings hand each other.
