/* Answers the ioctls of a DMA heap and of its buffers with plain memory, where there is no such device.
 * Preloaded; /dev/dma_heap/linux,cma is an empty file then. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...)
{
	static int (*next)(int, unsigned long, void *);
	va_list rest;
	va_start(rest, request);
	void *argument = va_arg(rest, void *);
	va_end(rest);

	switch (request) {
	case DMA_HEAP_IOCTL_ALLOC: {
		struct dma_heap_allocation_data *wanted = argument;
		int memory = memfd_create("dma-buf", MFD_CLOEXEC);
		if (memory < 0)
			return -1;
		if (ftruncate(memory, wanted->len)) {
			close(memory);
			return -1;
		}
		wanted->fd = memory;
		return 0;
	}
	case DMA_BUF_IOCTL_SYNC:
	case DMA_BUF_SET_NAME_A:
	case DMA_BUF_SET_NAME_B:
		return 0;
	}
	if (!next)
		next = dlsym(RTLD_NEXT, "ioctl");
	return next(fd, request, argument);
}
