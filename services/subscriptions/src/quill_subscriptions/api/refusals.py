"""Refusals of the domain and the use cases as problem documents.

Never 401 or 404 for a billing call refused for a business reason: PostHog's client takes those as answered (1.2).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from quill_runtime.auth import Forbidden
from quill_runtime.problems import Problem

from quill_subscriptions.domain.commands import IllegalMove
from quill_subscriptions.domain.item_changes import TooManyChanges
from quill_subscriptions.usecases.changes import NoCatalog, UnknownCustomer, UnknownProduct
from quill_subscriptions.usecases.registration import ForeignOrganization


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what a use case refuses into an answer.

    Raises:
        Problem: 400 for a wrong name, 403 for a foreign organization, 404 for an unknown customer (operators only),
            409 for a move that the state forbids, 503 while no catalog is in force.
    """
    try:
        yield
    except ForeignOrganization as error:
        raise Forbidden("permission_denied", str(error)) from error
    except UnknownProduct as error:
        raise Problem(400, "unknown_product", str(error), attr=error.attribute) from error
    except IllegalMove as error:
        raise Problem(409, error.code, str(error), attr=error.attribute) from error
    except TooManyChanges as error:
        raise Problem(409, error.code, str(error)) from error
    except UnknownCustomer as error:
        raise Problem(404, "not_found", str(error)) from error
    except NoCatalog as error:
        raise Problem(503, "no_catalog", str(error), headers={"Retry-After": "5"}) from error
