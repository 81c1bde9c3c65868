"""Reading a plan beside the event loop: what it promises is reckoned, which may take long."""

import asyncio
import threading
from contextlib import suppress

from fedsec.plan import FederationPlan

READ_S = 60.0  # seconds for one plan, waiting for its turn counted
AT_ONCE = 4  # plans that are read at a time
_LOOK_S = 0.05
_TURNS = threading.BoundedSemaphore(AT_ONCE)


async def read_plan(text: str, seconds: float) -> FederationPlan:
    """Returns the plan of an offer; connections and other runs are served meanwhile.

    Nothing ends a thread from outside: a plan that takes longer is read to its end, with nobody
    waiting, and keeps its turn until then. So a coordinator that offers such plans costs the node
    `AT_ONCE` threads and no more. They do not keep the agent from ending.

    Raises:
        ConfigError: The plan is wrong.
        TimeoutError: It was not read within `seconds`.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[FederationPlan] = loop.create_future()

    def tell(read: FederationPlan | Exception) -> None:
        if done.done():  # nobody waits any more
            return
        if isinstance(read, FederationPlan):
            done.set_result(read)
        else:
            done.set_exception(read)

    def read() -> None:
        result: FederationPlan | Exception
        try:
            result = FederationPlan.parse(text)
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            result = error
        finally:
            _TURNS.release()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, result)

    async with asyncio.timeout(seconds):
        while not _TURNS.acquire(blocking=False):  # noqa: ASYNC110 - turns outlive a loop
            await asyncio.sleep(_LOOK_S)
        threading.Thread(target=read, name="plan", daemon=True).start()
        return await done
