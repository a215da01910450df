"""A simulator of Convo's as a server: the provider's end over real HTTP on a loopback port.

    with SimulatedProvider(simulator) as provider:
        adapter.send(provider.account, message)
        provider.taken[0].text

Beside the server's own faults it has those of the simulator: `provider.inject(InjectedFault.THROTTLED)`.
"""

from __future__ import annotations

from collections import deque

from channels_out.contract import Account, InboundRequest
from channels_out.simulators.contract import AcceptedMessage, InjectedFault, Simulator
from tests.fakes.server import FakeServer, Received, Reply


class SimulatedProvider(FakeServer):
    """One account at one provider."""

    def __init__(self, simulator: Simulator, account: Account | None = None) -> None:
        self.simulator = simulator
        self.taken: list[AcceptedMessage] = []
        self._injected: deque[InjectedFault] = deque()
        super().__init__()
        address, credentials = simulator.new_account()
        made = Account(address, credentials, base_url=self.url, timeout=(2.0, 2.0), private_networks=("127.0.0.0/8",))
        self.account = account or made

    def inject(self, fault: InjectedFault) -> None:
        """Let the next request fail with this fault."""
        with self.lock:
            self._injected.append(fault)

    def handle(self, request: Received) -> Reply:
        """Answer as the simulator does."""
        with self.lock:
            fault = self._injected.popleft() if self._injected else None
        arrived = InboundRequest(request.method, request.path, request.headers, {}, request.body)
        answer = self.simulator.answer(self.account, arrived, fault)
        if answer.taken:
            with self.lock:
                self.taken.append(answer.taken)
        if answer.silent:
            self._closing.wait(10)
        headers = {"Content-Type": answer.content_type, **answer.headers}
        return Reply(answer.status, answer.body.encode(), headers)
