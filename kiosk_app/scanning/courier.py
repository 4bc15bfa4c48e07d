"""The courier: hands sealed messages to the outbox, then follows what the clinic's receipts say of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from uuid import UUID

import structlog

from hardware.host.patience import patience
from kiosk_app.kept.messages import Message
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsHeld, RecordsUnusable
from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.log import Told, why
from kiosk_app.scanning.sealer import Sealer
from sync.kiosk.client import NEVER_LEFT, OutboxClient, OutboxRefused, OutboxState, OutboxUnavailable

log = structlog.get_logger()

# A patient may wait for this: what is to be done is in the records, and the next round finds it there.
TURN_S = 10.0
# An outbox that loses again what it has just taken is given it again no sooner.
AGAIN_S = 60.0
# An outbox that knows none of so many results in a row knows none after them.
LATER_RESULTS = 3
# With these words it has not taken what it was given. After any other, such as none in time, it may have it.
NOT_TAKEN = ("full", "used", "bad_request")
_OLDER = (
    "the records are an older copy: what was sealed since has their next numbers, so later ones are taken."
    " 'dermakiosk scans list' shows as unknown what these records do not know"
)
_NOT_SENT = (
    "the records are an older copy, and this result is not sent: since then its scan was deleted, or it was"
    " to be sealed again and the outbox has not had that one. Delete it with 'dermakiosk shred'; where nobody"
    " wanted that, scan anew"
)


def vouch(records: Records, outbox: OutboxClient) -> None:
    """Look through what an agent found in its outbox when it began, and have it send that from now on.

    The outbox may be an older copy, from before a scan was deleted. What was sent of it while nobody looked
    is withdrawn. Raises OutboxUnavailable, RecordsError.
    """
    if not (found := outbox.unvouched()):
        return
    over = records.messages.are_over(found)
    outbox.vouch([message for message in found if message not in over])
    for message in over:
        outbox.discard(message)
        log.warning("discarded_again", message=str(message))
    # Only now, for none of these is sent from here on; and the agent notes each before it sends it.
    sent = outbox.sent_unvouched() if over else []
    for message in over:
        if message in sent:
            records.messages.has_left(message)
    outbox.vouch(over)


class Courier:
    """Every step may be repeated: the outbox knows a message by its id."""

    def __init__(self, records: Records, outbox: OutboxClient, sealer: Sealer) -> None:
        self._records, self._outbox, self._sealer = records, outbox, sealer
        self._turn = threading.Lock()
        # What the outbox may have, or an earlier one have had, though the records do not say so yet.
        self._may_have_left = set(records.messages.may_have_left)
        self._taken_out: set[UUID] = set()  # what the outbox is rid of, since another message took its place
        self._told = Told()
        self._ended_at: set[UUID] = set()  # messages at which a stage ended
        self._again_from: dict[UUID, float] = {}  # what was handed over again, by the monotonic clock

    def run_once(self, scan: UUID | None = None) -> bool:
        """Do what can be done now; False where nothing could be: everything stays as it is then.

        For one `scan` alone, where somebody waits for it: the others have their turn in the next round.
        """
        if not self._turn.acquire(timeout=patience(TURN_S)):
            return False
        try:
            return self._round(scan)
        finally:
            self._turn.release()

    def _round(self, scan: UUID | None) -> bool:
        """What was deleted comes first: a result that nobody may have is not sent, and a withdrawal is."""
        try:
            stages = [
                self._unless_records_end("vouch", self._vouch),
                self._stage(scan, self._discard, MessageState.DISCARDING, MessageState.DISCARDING_UNSENT),
                self._stage(scan, self._hand_over, MessageState.WAITING),
                self._stage(scan, self._follow, MessageState.SUBMITTED, MessageState.QUARANTINED),
                self._stage(scan, self._take_out, MessageState.RESEAL),
            ]
        except RecordsHeld as error:
            if self._told.begins("records", str(error)):
                log.error("round_ended", why=str(error))
            return False
        except OutboxUnavailable as error:
            if self._told.begins("outbox"):
                log.warning("outbox_unavailable", why=str(error))
            return False
        self._told.over("outbox")
        self._told.over("records")
        return all(stages)

    def _vouch(self) -> None:
        try:
            vouch(self._records, self._outbox)
        except OutboxRefused as refusal:  # a full disk, say; what the agent found waits, and nothing else
            if self._told.begins("vouch_refused", refusal.code):
                log.warning("not_looked_through", code=refusal.code, why=str(refusal))
        else:
            self._told.over("vouch_refused")

    def _stage(self, scan: UUID | None, step: Callable[[Message], None], *in_states: MessageState) -> bool:
        """Take the step of each message in these states; False where the records ended it before the last."""

        def work() -> None:
            for message in self._in_turn(*in_states):
                if scan in (None, message.scan):
                    self._alone(step, message)

        return self._unless_records_end(step.__name__, work)

    def _unless_records_end(self, stage: str, work: Callable[[], None]) -> bool:
        try:
            work()
        except RecordsHeld:
            raise
        except RecordsUnusable as error:
            if self._told.begins(stage, str(error)):
                log.error("stage_ended", why=str(error))
            return False
        self._told.over(stage)
        return True

    def _in_turn(self, *in_states: MessageState) -> list[Message]:
        """The messages in these states; those at which a stage ended come after all others."""
        return sorted(
            self._records.messages.in_states(*in_states), key=lambda message: message.id in self._ended_at
        )

    def _alone(self, step: Callable[[Message], None], message: Message) -> None:
        """Take one step of one message; whatever it raises, the others have their turn.

        Only an outbox that cannot be asked ends the round, and records that another process holds: each
        other message would wait for them anew. Records that cannot be used end the stage, for the next
        message of it would fail as well. In an outbox that is full the next one may make room.
        """
        try:
            step(message)
            self._ended_at.discard(message.id)
            self._told.over(message.id)
        except OutboxRefused as refusal:
            if self._told.begins("refusal", refusal.code):
                log.warning("outbox_refused", message=str(message.id), code=refusal.code)
        except OutboxUnavailable:
            raise
        except RecordsUnusable:
            self._ended_at.add(message.id)
            raise
        except Exception as error:  # noqa: BLE001  it stays as it is, and has its turn in the next round
            said = why(error)
            if self._told.begins(message.id, str(said)):
                log.error("set_aside", scan=str(message.scan), message=str(message.id), why=said)

    def _hand_over(self, message: Message) -> None:
        envelope = self._records.messages.envelope(message)
        if envelope is None:
            return  # it was deleted since the messages were listed
        before = message.id in self._may_have_left
        # Whatever becomes of the answer, and of the outbox before the records say that it has this.
        self._may_have_left.add(message.id)
        try:
            self._outbox.submit(message.id, message.kind, envelope, may_have_left=before)
        except OutboxRefused as refusal:
            if refusal.code in NOT_TAKEN and not before:
                self._may_have_left.discard(message.id)
            if refusal.code == "used":
                self._number_anew(message, refusal.highest)
            elif refusal.code == "conflict":
                self._leave_to_the_first(message)
            elif refusal.code == "bad_request":  # no later try will change that
                log.error("outbox_refused", message=str(message.id), code=refusal.code)
                self._records.messages.settle(message, MessageState.UNDELIVERABLE)
            else:
                raise
            return
        self._told.over("refusal")
        after = ScanState.HANDED_OVER if message.kind == "result" else None
        if self._records.messages.settle(message, MessageState.SUBMITTED, after):
            self._may_have_left.discard(message.id)  # the records say it now
            log.info("handed_over", scan=str(message.scan), message=str(message.id), kind=message.kind)

    def _number_anew(self, message: Message, highest: int) -> None:
        """Another message has left with its number, so these records are an older copy: seal it once more."""
        if self._records.messages.take_back(message, highest) and self._told.begins("older_copy"):
            log.error("records_older", why=_OLDER, from_number=highest + 1)

    def _leave_to_the_first(self, message: Message) -> None:
        """It was sealed and handed over before, and these records are a copy from before that."""
        after = ScanState.HANDED_OVER if message.kind == "result" else None
        if self._records.messages.settle(message, MessageState.SUBMITTED, after, other_envelope=True):
            self._may_have_left.discard(message.id)
            log.error("records_older", why=_OLDER, scan=str(message.scan), message=str(message.id))

    def _follow(self, message: Message) -> None:
        said = self._outbox.state(message.id)
        if said == OutboxState.UNKNOWN:
            self._hand_over_again(message)
            return
        self._told.over(("lost", message.id))
        if said == OutboxState.STORED:
            after = ScanState.STORED if message.kind == "result" else None
            self._records.messages.settle(message, MessageState.STORED, after)
            log.info("stored", scan=str(message.scan), message=str(message.id), kind=message.kind)
        elif said == OutboxState.QUARANTINED:
            if message.state != MessageState.QUARANTINED:
                self._records.messages.settle(message, MessageState.QUARANTINED)
                log.warning("quarantined", scan=str(message.scan), message=str(message.id))
        elif said == OutboxState.DISCARDED:
            self._follow_discarded(message)
        elif said == OutboxState.RESEAL:  # sealed to a key that the clinic has retired
            self._seal_again(message)

    def _take_out(self, message: Message) -> None:
        """Take what is to be sealed again out of the outbox, once the records say that it is.

        Whatever cuts that short, a later round does it. An outbox that has nothing of it is left alone.
        """
        if message.id in self._taken_out:
            return
        if self._outbox.state(message.id) not in (OutboxState.UNKNOWN, OutboxState.DISCARDED):
            self._outbox.discard(message.id)
        self._taken_out.add(message.id)

    def _follow_discarded(self, message: Message) -> None:
        """Of this the records know nothing, so they are an older copy.

        A withdrawal is discarded only where another one took its place. So may a result be, and it is sealed
        again where the outbox has had that one. If not, its scan was deleted, or the application ended before
        it handed that one over. The outbox does not know which, so the result is not sent.
        """
        following = self._records.messages.id_of_next(message)
        if message.kind == "withdraw" or self._outbox.state(following) != OutboxState.UNKNOWN:
            self._seal_again(message)
            return
        never_left = self._outbox.discard(message.id) in NEVER_LEFT
        over = MessageState.UNDELIVERABLE if never_left else MessageState.WITHDRAWN
        if self._records.messages.settle(message, over):
            log.error("not_sent_again", why=_NOT_SENT, scan=str(message.scan), message=str(message.id))

    def _hand_over_again(self, message: Message) -> None:
        """Of a message that the outbox had, and has lost: its file was damaged and moved aside, say.

        It may have left before. The clinic takes the same envelope once, however often it comes.
        """
        now = time.monotonic()
        self._again_from = {known: at for known, at in self._again_from.items() if at > now}
        if message.id in self._again_from or not self._records.messages.is_current(message):
            return
        envelope = self._records.messages.envelope(message)
        if envelope is None:  # an earlier version kept none
            if message.state == MessageState.SUBMITTED:
                self._seal_again(message)
            return
        try:
            self._outbox.submit(message.id, message.kind, envelope, may_have_left=True)
        except OutboxRefused as refusal:
            if refusal.code != "used":
                raise
            self._seal_again(message)
            return
        self._again_from[message.id] = now + AGAIN_S
        if self._told.begins(("lost", message.id)):
            log.warning(
                "handed_over_again", scan=str(message.scan), message=str(message.id), kind=message.kind
            )

    def _seal_again(self, message: Message) -> None:
        """Have another message, with an id of its own, take the place of this one in the next round."""
        if message.kind == "withdraw":
            self._records.messages.withdraw_again(message)
        else:
            self._records.messages.settle(message, MessageState.RESEAL, ScanState.ANALYSED)
        log.warning("reseal", scan=str(message.scan), message=str(message.id), kind=message.kind)

    def _discard(self, message: Message) -> None:
        """A shredded scan's result: taken out of the outbox when unsent, else withdrawn at the clinic.

        So are those of which another one took the place, or that these records forgot. One that did so was
        sent before, whatever became of it.
        """
        was = self._outbox.discard(message.id)
        carriers = self._records.messages.carriers(message.scan)
        for carrier in carriers:
            if carrier != message.id:
                self._outbox.discard(carrier)
        forgotten = self._forgotten(message.scan)
        left_since = [each for each in forgotten if self._outbox.discard(each) not in NEVER_LEFT]
        certain = message.state == MessageState.DISCARDING_UNSENT and message.id not in self._may_have_left
        unsent = was == OutboxState.WAITING or (was == OutboxState.UNKNOWN and certain)
        if unsent and not left_since and self._records.messages.superseded(message.scan) is None:
            self._records.messages.settle(message, MessageState.DISCARDED)
        else:
            reason = "staff" if self._records.is_staffs_wish(message.scan) else "patient"
            self._records.messages.add(
                message.scan,
                "withdraw",
                self._sealer.epoch,
                lambda id_, sequence: self._sealer.seal_withdraw(
                    id_, sequence, scan=message.scan, reason=reason, messages=[*carriers, *forgotten]
                ),
            )
            self._records.messages.settle(message, MessageState.WITHDRAWN)
        self._may_have_left.discard(message.id)

    def _forgotten(self, scan: UUID) -> list[UUID]:
        """The results of a scan that the outbox knows, and these records, an older copy, do not."""
        known, unknown = [], 0
        for message in self._records.messages.later_ids(scan):
            if self._outbox.state(message) != OutboxState.UNKNOWN:
                known.append(message)
                unknown = 0
            elif (unknown := unknown + 1) == LATER_RESULTS:
                break
        return known
