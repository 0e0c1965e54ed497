"""Reading a request."""

from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from service.requests import query_of

QUERIES = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"limit=20", b"limit=5", b"language=de", b"a=%20%C3%A4+b", b"surface=", b"cursor"])).map(
        b"&".join
    ),
)


@given(QUERIES)
def test_a_query_is_what_starlette_reads_in_it(query: bytes) -> None:
    """Values, repeated names, blanks, escapes and bytes that are no text; the second look gives the same."""
    request = Request({"type": "http", "query_string": query, "headers": []})
    for _ in range(2):
        assert dict(query_of(request)) == dict(request.query_params)
