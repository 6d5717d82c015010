"""What runs above the stores, and with which environment each part is started."""

import base64
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quill_stack import queues
from quill_stack.ports import HOST, PortChooser
from quill_stack.state_folder import StateFolder
from quill_stack.stores import Stores

SERVICES: Final = ("subscriptions", "licensing", "usage-ingest", "quota-limiter", "invoicing")
"""Services that own a database, facts first: the others read what subscriptions and licensing publish."""

FAMILIAR_PORTS: Final = {
    "gateway": 28000,
    "usage-ingest": 28001,
    "quota-limiter": 28002,
    "subscriptions": 28003,
    "invoicing": 28004,
    "licensing": 28005,
    "stripesim": 28006,
    "mail": 28025,
    "queues": 28026,
}
SEALING_KEY_BYTES: Final = 32
MAIL_FROM: Final = "billing@quill.example"
SIMULATED_STRIPE_KEY: Final = "sk_test_quill_local"
SIMULATED_CARD: Final = "pm_card_visa"


def module_name(service: str) -> str:
    """The import name of a service's package."""
    return "quill_" + service.replace("-", "_")


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """What services share and nobody else may know."""

    sealing_keys: str
    operator_token: str
    stripe_webhook_secret: str

    @classmethod
    def fresh(cls) -> "Secrets":
        """New ones."""
        key = base64.urlsafe_b64encode(secrets.token_bytes(SEALING_KEY_BYTES)).decode().rstrip("=")
        return cls(
            sealing_keys=f"local1:{key}",
            operator_token=f"quill_op_{secrets.token_urlsafe(24)}",
            stripe_webhook_secret=f"whsec_{secrets.token_urlsafe(24)}",
        )

    @classmethod
    def of(cls, state: StateFolder) -> "Secrets":
        """Those of a state folder, made when it has none."""
        fresh = cls.fresh()
        return cls(
            sealing_keys=state.kept_secret("sealing", fresh.sealing_keys),
            operator_token=state.kept_secret("operator", fresh.operator_token),
            stripe_webhook_secret=state.kept_secret("stripe-webhook", fresh.stripe_webhook_secret),
        )

    @property
    def api_tokens(self) -> str:
        """What services are told: a hash of the operator's token, never the token."""
        return f"operator:operator:{hashlib.sha256(self.operator_token.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Component:
    """One process above the stores."""

    name: str
    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    port: int
    ready_path: str | None
    """Answers 200 when it can work; ``None`` means an open port is enough."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def ready_url(self) -> str | None:
        return None if self.ready_path is None else self.url + self.ready_path

    def argv(self, *arguments: str) -> list[str]:
        """The command line; ``arguments`` replace the usual ones."""
        return [sys.executable, "-m", self.module, *(arguments or self.arguments)]


def plan(
    stores: Stores,
    databases: Mapping[str, str],
    *,
    kept: Secrets,
    ports: PortChooser,
    clock_file: Path | None,
    environ: Mapping[str, str] | None = None,
    with_queues: bool = False,
) -> tuple[Component, ...]:
    """Every component in the order of starting: stand-ins for Stripe and mail, the services, the gateway.

    Args:
        stores: Where the stores answer.
        databases: URL of each service's own database.
        kept: Keys and tokens of this state folder.
        ports: Hands out ports.
        clock_file: The sandbox clock, when this stack may live at another time than the machine.
        environ: Instead of ``os.environ``; ``STRIPE_API_KEY``, ``SMTP_HOST`` and ``USAGE_QUEUE_SOURCE`` there replace
            the stand-ins.
        with_queues: Emulate the queues and the bucket that a region fills.
    """
    given = os.environ if environ is None else environ
    chosen = {name: ports.choose(port) for name, port in FAMILIAR_PORTS.items()}
    stand_ins: list[Component] = []
    common = {
        "KAFKA_BOOTSTRAP_SERVERS": stores.kafka_bootstrap_servers,
        "HTTP_HOST": HOST,
        "QUILL_INSTANCE_ID": "1",
        "QUILL_SEALING_KEYS": kept.sealing_keys,
        "QUILL_API_TOKENS": kept.api_tokens,
    }
    if clock_file is not None:
        common["QUILL_CLOCK_FILE"] = str(clock_file)

    invoicing = {"STRIPE_WEBHOOK_SECRETS": given.get("STRIPE_WEBHOOK_SECRETS", kept.stripe_webhook_secret)}
    if given.get("STRIPE_API_KEY"):
        invoicing["STRIPE_API_KEY"] = given["STRIPE_API_KEY"]
    else:
        simulator = Component(
            name="stripesim",
            module="quill_stripesim",
            arguments=(
                "serve",
                f"--port={chosen['stripesim']}",
                f"--webhook-url=http://{HOST}:{chosen['invoicing']}/webhooks/stripe",
                f"--webhook-secret={kept.stripe_webhook_secret}",
                "--grace-hours=72",
                f"--state={stores.state.path / 'stripesim.json'}",
                *([f"--clock-file={clock_file}"] if clock_file else []),
            ),
            environment={},
            port=chosen["stripesim"],
            ready_path="/_control/state",
        )
        stand_ins.append(simulator)
        invoicing |= {
            "STRIPE_API_KEY": SIMULATED_STRIPE_KEY,
            "STRIPE_API_BASE": simulator.url,
            "STRIPE_TEST_PAYMENT_METHOD": SIMULATED_CARD,
        }

    # One proxy of ours stands in front: the gateway. Without this every signup would seem to come from one address.
    licensing = {"SMTP_FROM": given.get("SMTP_FROM", MAIL_FROM), "SIGNUP_TRUSTED_HOPS": "1"}
    if given.get("SMTP_HOST"):
        licensing |= {name: given[name] for name in given if name.startswith("SMTP_")}
    else:
        mail = Component(
            name="mail",
            module="quill_stack.mail_sink",
            arguments=(),
            environment={"SMTP_PORT": str(chosen["mail"]), "MAIL_DIR": str(stores.state.path / "mail")},
            port=chosen["mail"],
            ready_path=None,
        )
        stand_ins.append(mail)
        licensing |= {"SMTP_HOST": HOST, "SMTP_PORT": str(mail.port)}

    usage_ingest: dict[str, str] = {}
    if with_queues and not given.get("USAGE_QUEUE_SOURCE"):
        stand_ins.append(_queues(chosen["queues"], clock_file))
        usage_ingest = queues.settings_of_usage_ingest(chosen["queues"])

    own = {
        "usage-ingest": usage_ingest,
        "invoicing": invoicing,
        "licensing": licensing,
        "quota-limiter": {
            "REDIS_URL": stores.redis_url,
            "WEBHOOK_PLAIN_HTTP": "allow",  # receivers of one's own, on this very machine
            "WEBHOOK_PRIVATE_NETWORKS": "allow",
        },
    }
    services = [
        Component(
            name=name,
            module=module_name(name),
            arguments=("serve",),
            environment={
                **common,
                "DATABASE_URL": databases[name],
                "HTTP_PORT": str(chosen[name]),
                **own.get(name, {}),
            },
            port=chosen[name],
            ready_path="/health/ready",
        )
        for name in SERVICES
    ]
    gateway = Component(
        name="gateway",
        module="quill_stack.gateway",
        arguments=(),
        environment={
            "HTTP_PORT": str(chosen["gateway"]),
            "QUILL_SERVICE_URLS": json.dumps({service.name: service.url for service in services}),
        },
        port=chosen["gateway"],
        ready_path="/health/live",
    )
    return (*stand_ins, *services, gateway)


def _queues(port: int, clock_file: Path | None) -> Component:
    clock = {} if clock_file is None else {"QUILL_CLOCK_FILE": str(clock_file)}
    return Component(
        name="queues",
        module="quill_stack.queues",
        arguments=(),
        environment={"QUEUES_PORT": str(port), **clock},
        port=port,
        ready_path=None,
    )
