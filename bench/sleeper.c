/* A child that does nothing until a signal ends it. */
#include <unistd.h>

int main(void) { return pause(); }
