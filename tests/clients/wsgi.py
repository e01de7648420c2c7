"""The smallest application that gunicorn serves; tests/clients.rs asks it for its page."""


def application(_environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
