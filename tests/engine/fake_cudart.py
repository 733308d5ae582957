"""The few functions of the CUDA runtime that are called; its device memory is the CPU's."""

import ctypes


class FakeCudart:
    """Attributes: `locked`, the bytes that are page-locked by address; `last_error`, as CUDA keeps it for a thread."""

    def __init__(self, *, refuses_to_lock=False):
        self.refuses_to_lock = refuses_to_lock
        self.fails_to_copy = False
        self.locked = {}
        self.last_error = 0

    def cudaHostRegister(self, address, size, flags):  # noqa: N802 (its name, as below)
        if self.refuses_to_lock:
            return self._error(2)
        assert address.value not in self.locked
        self.locked[address.value] = size.value
        return 0

    def cudaHostUnregister(self, address):  # noqa: N802
        del self.locked[address.value]
        return 0

    def cudaSetDevice(self, device_id):  # noqa: N802
        return 0

    def cudaMemcpy(self, to, source, size, kind):  # noqa: N802
        if self.fails_to_copy:
            return self._error(700)
        ctypes.memmove(to, source, size.value)
        return 0

    def cudaStreamSynchronize(self, stream):  # noqa: N802
        return 0

    def cudaGetLastError(self):  # noqa: N802
        error, self.last_error = self.last_error, 0
        return error

    def _error(self, code):
        self.last_error = code
        return code
