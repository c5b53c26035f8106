//! Reading and writing the primitive types of the wire format.
