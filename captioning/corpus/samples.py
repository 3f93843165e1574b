"""Hold the rows with the smallest uids: a sample that does not depend on the order in which rows come."""

import pyarrow as pa
import pyarrow.compute as pc


class SmallestUids:
    """Holds at most `most` rows, twice as many while they come. Uids are MD5s, so that the smallest are a fair draw."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: list[pa.Table] = []
        self._rows = 0
        self._bound: bytes | None = None
        """No uid above it is among the smallest."""

    def add(self, table: pa.Table) -> None:
        """Look at rows with a column `uid`."""
        if self._bound is not None:
            table = table.filter(pc.less_equal(table["uid"].cast(pa.binary()), pa.scalar(self._bound, pa.binary())))
        self._held.append(table)
        self._rows += table.num_rows
        if self._rows > 2 * self.most:
            self._held = [self.table()]
            self._rows = self._held[0].num_rows
            self._bound = self._held[0]["uid"][-1].as_py()

    def table(self) -> pa.Table:
        """Return the rows by uid."""
        if not self._held:
            return pa.table({"uid": pa.array([], pa.binary(16))})
        whole = pa.concat_tables(self._held)
        return whole.take(pc.sort_indices(whole, [("uid", "ascending")])[: self.most]).combine_chunks()
